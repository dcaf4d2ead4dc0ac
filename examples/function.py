"""Reconstruct a record's missing modalities with a plain function, from synchronous and from async code.

Run it from the repository's root: python examples/function.py
"""

import asyncio
from pathlib import Path

from omg_graph import MemoryArtifactStore, load_model, reconstruct

SAMPLE = Path(__file__).with_name("sample.pkl")


def main() -> None:
    model = load_model()  # the embedded default; load_model("my_model") loads your own
    arrays = MemoryArtifactStore()
    (trajectory,) = reconstruct(model, SAMPLE, artifacts=arrays)
    for name, ref in trajectory.reconstruction.items():
        print(f"{name}: {arrays.get(ref).shape} numbers, planned as {trajectory.plan.text!r}")
    print(f"prediction: {trajectory.prediction.label}")


async def main_async() -> None:
    """The call is CPU-bound, so each one runs in a separate thread and the event loop stays free."""
    model = load_model()
    hidden = [["vision"], ["text"]]
    runs = [asyncio.to_thread(reconstruct, model, SAMPLE, missing=names) for names in hidden]
    for names, (trajectory,) in zip(hidden, await asyncio.gather(*runs), strict=True):
        print(f"without {', '.join(names)} too: {trajectory.prediction.label}")


if __name__ == "__main__":
    main()
    asyncio.run(main_async())
