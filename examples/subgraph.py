"""Run the reconstruction inside a LangGraph graph that has a different state.

Run it from the repository's root: python examples/subgraph.py
"""

from pathlib import Path
from typing import TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from omg_graph import Model, Settings, build_graph, load_model


class Review(TypedDict, total=False):
    """A customer's review; its recording may be incomplete."""

    recording: str
    mood: str
    grounds: list[str]
    reply: str


def build_review_graph(model: Model) -> CompiledStateGraph:
    reconstruction = build_graph(model)

    def listen(review: Review) -> Review:
        """Translate between the two states: this graph works on reviews, the other one on samples."""
        result = reconstruction.invoke({"path": review["recording"]}, context=Settings(top_k=3))
        (trajectory,) = result["trajectories"]
        found = {entry.id for entries in trajectory.evidence.values() for entry in entries}
        return {"mood": trajectory.prediction.label, "grounds": sorted(found)}

    def reply(review: Review) -> Review:
        return {"reply": f"We take it that you found it {review['mood']}, as did {review['grounds'][0]}."}

    graph = StateGraph(Review)
    graph.add_node("listen", listen)
    graph.add_node("reply", reply)
    graph.add_edge(START, "listen")
    graph.add_edge("listen", "reply")
    graph.add_edge("reply", END)
    return graph.compile()


if __name__ == "__main__":
    review: Review = {"recording": str(Path(__file__).with_name("sample.pkl"))}
    print(build_review_graph(load_model()).invoke(review)["reply"])
