import pytest

from dyncollapse.runtime.settings import SettingError
from dyncollapse.simulation.build import build
from dyncollapse.simulation.presets import resolve


@pytest.mark.parametrize(
    ("settings", "most"),
    [({"init_scale": 1e12, "depth": 20}, "1e[+]147"), ({"init_scale": 1e15, "dtype": "float32"}, "2e[+]12")],
)
def test_layers_whose_product_has_no_square_are_refused(settings, most):
    with pytest.raises(SettingError, match=rf"multiply to entries of .*at most {most} is allowed; lower init_scale or"):
        build(resolve({"dim": 4, "pool": 0, **settings}))
