"""What if? The same clip with another plan, and without one entry of its evidence.

Steps before the fork aren't computed again. Run it from the repository's root: python examples/whatif.py
"""

from pathlib import Path

import numpy as np

from omg_graph import MemoryArtifactStore, Trajectory, fork_run, load_model, reconstruct

SAMPLE = Path(__file__).with_name("sample.pkl")


def main() -> None:
    model, arrays = load_model(), MemoryArtifactStore()
    (trajectory,) = reconstruct(model, SAMPLE, artifacts=arrays)
    print(f"unchanged: {trajectory.plan.text} -> {trajectory.prediction.label}")

    def moved(fork: Trajectory) -> float:
        """How far the audio has moved (RMS), in standard deviations of the training data."""
        before, after = (arrays.get(one.reconstruction["audio"]) for one in (trajectory, fork))
        deviation = model.latent_space.codecs["audio"].deviation
        return float(np.sqrt(np.mean(((after - before) / deviation) ** 2)))

    for value in ("strongly negative", "neutral", "strongly positive"):
        fork = fork_run(model, trajectory, artifacts=arrays, constraints={"Sentiment": value})
        print(f"if it were {value}: {fork.prediction.label}, audio moved by {moved(fork):.3f}")

    heaviest = trajectory.evidence["audio"][0]
    fork = fork_run(model, trajectory, artifacts=arrays, drop_evidence=[heaviest.id])
    print(f"without {heaviest.id}: {fork.prediction.label}, audio moved by {moved(fork):.3f}")


if __name__ == "__main__":
    main()
