"""Call the reconstruction as a LangChain tool, the way a language model does.

Run it from the repository's root: python examples/tool.py
"""

from pathlib import Path

from omg_graph import MemoryArtifactStore, as_tool, load_model


def main() -> None:
    arrays = MemoryArtifactStore()
    # The language model may use the files in this folder only.
    tool = as_tool(load_model(), data_folder=Path(__file__).parent, artifacts=arrays)

    call = {"type": "tool_call", "id": "1", "name": tool.name, "args": {"path": "sample.pkl"}}
    message = tool.invoke(call)
    print(message.content)  # what the language model reads
    for trajectory in message.artifact:  # what your program gets
        for name, ref in trajectory.reconstruction.items():
            print(f"{name}, the first of {arrays.get(ref).size} numbers: {arrays.get(ref)[0]:.3f}")

    refused = tool.invoke(call | {"args": {"path": "../README.md"}})
    print(f"{refused.status}: {refused.content}")


if __name__ == "__main__":
    main()
