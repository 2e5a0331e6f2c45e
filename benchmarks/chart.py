"""A bar chart of the ratios, as PNG; needs matplotlib."""

from pathlib import Path


def draw(bars: dict[str, tuple[float, float]], target: Path) -> None:
    """One bar for each entry, `name: (times as fast as the plain way, part of the conv ceiling)`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(reversed(bars))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 0.42 * len(names) + 1.2), sharey=True)
    for axis, index, title in (
        (left, 0, "times as fast as fp32, NCHW, whole picture"),
        (right, 1, "part of the ceiling of its convolutions"),
    ):
        values = [bars[name][index] for name in names]
        axis.barh(names, values, color="#3b6ea5")
        for at, value in enumerate(values):
            axis.text(value, at, f" {value:.2f}", va="center", fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlim(0, max(values) * 1.15)
    figure.tight_layout()
    figure.savefig(target, dpi=110)
