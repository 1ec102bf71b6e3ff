"""Fig. 3: one layer, augmentation swept through the collapse threshold."""

from itertools import islice

import torch
from figure import Result, claim, main, plt

from dyncollapse import (
    GaussianTask,
    collapse_threshold,
    gaussian_init,
    mode_dimensions,
    rest_singular_values,
    sample_flow,
    stack_pairs,
    train,
)
from dyncollapse.plotting import plot_spectrum

DIM, AUG_DIM, BATCH, POOL, LR, SEED = 16, 8, 128, 10_000, 0.1, 0


def draw(quick: bool) -> Result:
    """Draw the singular values of W for several augmentation strengths k, and the augmented block's against k."""
    strengths = (0.0, 0.5, 1.5, 3.0) if quick else (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
    runs, batches, steps = (2, 4, 2_000) if quick else (5, 16, 3_000)
    shown = (0.0, 0.5, 1.0, 1.5, 3.0)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.5))
    rows, colors = [], plt.get_cmap("viridis")
    clean, augmented = {"sgd": [], "flow": []}, {"sgd": [], "flow": []}
    for k in strengths:
        task = GaussianTask.block(DIM, AUG_DIM, k)
        generator = torch.Generator().manual_seed(SEED)
        weights = gaussian_init([DIM, DIM], generator, (runs,))
        stream = task.stream(BATCH, generator, (runs,), POOL)
        sgd = train(weights, stream, lr=LR, steps=steps)
        flow = sample_flow(weights, stack_pairs(list(islice(stream, batches))), sgd.time[1:])
        for name, path in (("sgd", sgd), ("flow", flow)):
            sigma = path.singular_values[-1]
            plain, noisy = mode_dimensions(path.final(), task).singular_value.split([DIM - AUG_DIM, AUG_DIM], dim=-1)
            clean[name].append(plain.min(-1).values.mean())
            augmented[name].append(noisy.max(-1).values.mean())
            rows += [
                {"k": k, "dynamics": name, "rank": i + 1, "mean": float(v.mean()), "spread": float(v.std(correction=0))}
                for i, v in enumerate(sigma.T)
            ]
            if k in shown:
                style = {"color": colors(shown.index(k) / len(shown))}
                style |= {"linestyle": "none", "marker": "o"} if name == "sgd" else {"label": f"$k$ = {k:g}"}
                plot_spectrum(left, sigma.mean(0), spread=sigma.std(0, correction=0), **style)
    left.set_ylim(1e-8, 10)
    left.plot([], [], "o", color="0.5", label="SGD")
    left.plot([], [], "-", color="0.5", label="gradient flow")
    left.legend(loc="lower left")

    threshold = collapse_threshold(0.5)
    grid = torch.linspace(0.02, 3, 300, dtype=torch.float64)
    rest = [float(rest_singular_values(GaussianTask.block(1, 1, float(k)))[0]) for k in grid]
    right.plot(grid, rest, color="0.5", linestyle="--", label="rest point, infinite batch")
    right.axvline(threshold, color="0.5", linestyle=":", label=f"threshold $k$ = {threshold:g}")
    right.plot(strengths, clean["sgd"], "^", color="C2", label="SGD, smallest of unaugmented block")
    right.plot(strengths, augmented["sgd"], "o", color="C0", label="SGD, largest of augmented block")
    right.plot(strengths, augmented["flow"], "-", color="C1", label="flow, largest of augmented block")
    right.set(yscale="log", ylim=(1e-8, 10), xlabel="augmentation variance $k$", ylabel="singular value of $W$")
    figure.legend(handles=right.get_legend_handles_labels()[0], loc="outside lower center", ncols=3)

    factors = {name: torch.stack(clean[name]) / torch.stack(augmented[name]) for name in clean}
    for name, least in (("sgd", 100), ("flow", 8)):
        for k, factor in zip(strengths, factors[name].tolist(), strict=True):
            if k >= 1.5:
                claim(
                    factor > least,
                    f"{name}, k = {k}: augmented block a factor {least} below the rest, not {factor:.3g}",
                )
            if k <= 0.5:
                claim(factor < 10, f"{name}, k = {k}: no collapse below the threshold, but a factor {factor:.3g}")
        claim(bool((factors[name].diff() > 0).all()), f"{name}: the gap grows with k: {factors[name].tolist()}")
    measured = "; ".join(
        f"k = {k:g}: {float(sgd):.3g}, {float(flow):.3g}"
        for k, sgd, flow in zip(strengths, factors["sgd"], factors["flow"], strict=True)
    )
    return Result(
        figure,
        rows,
        f"""One linear layer trained on Eq. 2 (InfoNCE, one-sided views), d = {DIM}, data covariance I/2, the last {AUG_DIM}
inputs augmented with variance k. Left: singular values of W at flow time t = {LR * steps:g}: SGD (dots; learning rate {LR},
batches of {BATCH} from a pool of {POOL}, {runs} runs of seed {SEED}, band: one standard deviation) and the gradient flow
averaged over {batches} fixed batches of {BATCH} (lines). Right: the same against k, with the threshold k = 1 and the rest point
that a single augmented mode has with infinitely many negatives.
Singular values are assigned to input modes by the overlap of their right singular vectors. Smallest of the unaugmented
block over largest of the augmented one (SGD, flow): {measured}.
Asserted: this ratio is above 100 (SGD) and 8 (flow, which can overfit its fixed batches) at k >= 1.5 and below 10 at k <= 0.5, and grows with k.""",
    )


if __name__ == "__main__":
    main("fig03_strong_augmentation", draw)
