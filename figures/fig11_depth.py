"""Fig. 11 (App. C): deeper networks collapse more dimensions, linear and ReLU."""

import itertools

import torch
from figure import Result, claim, main, plt

from dyncollapse import COLLAPSED_BELOW, GaussianTask, Objective, covariance_spectrum, forward, train, uniform_init
from dyncollapse.plotting import plot_spectrum

DIM, BATCH, POOL, AUG, LR, SEED, DEPTHS = 16, 128, 10_000, 0.01, 0.1, 0, (1, 2, 3, 4)


def draw(quick: bool) -> Result:
    """Draw the embedding covariance spectrum for depths 1 to 4, mean and spread over seeds."""
    runs, steps = (5, 500) if quick else (8, 2_000)
    task = GaussianTask.block(DIM, DIM, AUG)
    probe = task.sample(4_000, torch.Generator().manual_seed(SEED + 1)).anchor
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.9), sharey=True)
    rows, found = [], []
    for ax, activation, title in zip(axes, ("linear", "relu"), ("(a) linear", "(b) ReLU"), strict=True):
        collapsed = []
        for depth in DEPTHS:
            generator = torch.Generator().manual_seed(SEED)
            weights = uniform_init([DIM] * (depth + 1), generator, (runs,))
            stream = task.stream(BATCH, generator, (runs,), POOL)
            path = train(weights, stream, lr=LR, steps=steps, objective=Objective(activation=activation))
            spectrum = covariance_spectrum(forward(path.final(), probe, activation))
            below = (spectrum < COLLAPSED_BELOW**2 * spectrum[:, :1]).sum(-1).double()
            collapsed.append(float(below.mean()))
            plot_spectrum(
                ax,
                spectrum.log().mean(0).exp(),
                spread=spectrum.log().std(0, correction=0) * spectrum.log().mean(0).exp(),
                label=f"{depth} layer{'s' if depth > 1 else ''}: {below.mean():.1f} ± {below.std(correction=0):.1f} collapsed",
                marker="o",
                markersize=2.5,
            )
            rows += [
                {"activation": activation, "depth": depth, "run": r, "rank": k + 1, "covariance_eigenvalue": float(v)}
                for r, values in enumerate(spectrum)
                for k, v in enumerate(values)
            ]
        ax.set(title=title, xlabel="rank", ylim=(1e-10, 1e3))
        ax.legend(loc="lower left")
        found.append(collapsed)
        more = all(later > earlier for earlier, later in itertools.pairwise(collapsed))
        claim(more, f"{activation}: each layer adds collapsed dimensions: {collapsed} for depths {DEPTHS}")
    axes[0].set_ylabel("embedding covariance eigenvalue")
    axes[1].set_ylabel("")
    return Result(
        figure,
        rows,
        f"""Eigenvalues of the embedding covariance (Eq. 1, on 4000 fresh samples) of networks of 1 to 4 layers of width {DIM}, linear (a)
and with ReLU between layers (b), after SGD on Eq. 2 (one-sided views, data covariance I/2, augmentation variance {AUG}
in all directions, batches of {BATCH} from a pool of {POOL}, learning rate {LR}, {steps} steps), from the uniform start of
torch.nn.Linear. Lines: geometric mean over {runs} runs of seed {SEED}; bands: one standard deviation. A dimension
counts as collapsed below {COLLAPSED_BELOW**2:g} of the largest eigenvalue: {found[0]} (linear), {found[1]} (ReLU) on average.
Asserted: the mean count rises with every layer. Augmentation is far below its threshold, so that the collapsed dimensions in (a) only wait (implicit regularisation).""",
    )


if __name__ == "__main__":
    main("fig11_depth", draw)
