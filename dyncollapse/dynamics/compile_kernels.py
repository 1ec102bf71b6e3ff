"""Compile all kernels now and not at their first call: `python -m dyncollapse.dynamics.compile_kernels`.

It takes half a minute to a minute, once on a machine. An image of a container whose files cannot be written later needs
it, for instance. It takes numba and SciPy, and none of the other requirements.
"""

from numba import types

from dyncollapse.dynamics import _population_compiled as population
from dyncollapse.dynamics import _steps_compiled as steps
from dyncollapse.model import _forces_compiled as forces
from dyncollapse.runtime.compiled import compile_for

LIST, MATRIX, BATCHES = (types.Array(types.float64, axes, "C") for axes in (1, 2, 3))
NUMBER, TRUTH = types.float64, types.boolean
INDICES, PLACES = (types.Array(types.int64, axes, "C") for axes in (2, 3))
TERMS = types.NamedTuple((PLACES, types.int64, NUMBER, TRUTH, NUMBER, MATRIX, MATRIX), population.Terms)


def compile_kernels() -> None:
    """Compile every function for each kind of arrays that it gets, or load what is compiled already."""
    for kind in (types.float32, types.float64):
        values, matrix, batches = (types.Array(kind, axes, "C") for axes in (1, 2, 3))
        batch = (batches, batches, batches, TRUTH)
        compile_for(forces.infonce_forces, *batch, batches)
        compile_for(forces.dot_forces, *batch, NUMBER, batches)
        compile_for(forces.infonce_losses, *batch, values)
        compile_for(forces.dot_losses, *batch, NUMBER, values)
        compile_for(steps.descend, matrix, matrix, INDICES, batches, types.UniTuple(NUMBER, 3), batches)
    compile_for(forces.infonce_forces_along, BATCHES, BATCHES, BATCHES, TRUTH, BATCHES)
    compile_for(forces.dot_forces_along, BATCHES, BATCHES, BATCHES, TRUTH, NUMBER, BATCHES)
    compile_for(population.fill_point, LIST, TERMS, LIST, LIST)
    compile_for(population.fill_derivative, LIST, TERMS, LIST, LIST)
    compile_for(population.almost_diagonal, TERMS, LIST)
    compile_for(population.fill_bases, MATRIX, MATRIX, TERMS, LIST, LIST)
    compile_for(population.fill_share, TERMS, NUMBER, LIST)
    compile_for(population.fill_solution, LIST, TERMS, NUMBER, LIST, LIST)


if __name__ == "__main__":
    compile_kernels()
