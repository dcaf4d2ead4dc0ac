"""Reconstruct on another machine: use a RemoteGraph like the graph itself, also for forks.

Start a server in the repository's root (langgraph dev --no-browser), then, in another terminal:
python examples/remote.py http://127.0.0.1:2024
"""

import sys

from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk import get_sync_client

from omg_graph import Settings, fork_thread


def main(url: str) -> None:
    graph = RemoteGraph("reconstruct", url=url)
    thread = get_sync_client(url=url).threads.create()
    config = {"configurable": {"thread_id": thread["thread_id"]}}

    # the path is relative to the server's data folder, which is examples/ by default
    result = graph.invoke({"path": "sample.pkl"}, config, context={"seed": 1, "steps": 10})
    (trajectory,) = result["trajectories"]  # JSON: you can read it without this package
    print(f"plan: {trajectory['plan']['text']}; prediction: {trajectory['prediction']['label']}")
    print(f"audio: {trajectory['reconstruction']['audio']['uri']}")

    # what if? The thread's checkpoints are on the server
    change = {"Sentiment": "strongly negative"}
    fork = fork_thread(graph, config, constraints=change, settings=Settings(seed=1, steps=10))
    (trajectory,) = fork["trajectories"]
    print(f"fork: {trajectory['plan']['text']}; prediction: {trajectory['prediction']['label']}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:2024")
