"""Let a person choose the plan: the graph pauses after re-ranking and resumes with the answer.

Run it from the repository's root: python examples/review.py
"""

from pathlib import Path

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from omg_graph import Model, Settings, Trajectory, build_graph, checkpoint_serializer, load_model

SAMPLE = Path(__file__).with_name("sample.pkl")


def ask(request: dict) -> dict:
    """In your application: replace this with a web page, a chat message or a ticket."""
    if request["error"]:
        print(request["error"])
    for candidate in request["candidates"]:
        print(f"{candidate['number']} {candidate['text']} (score {candidate['score']:.2f})")
    said = input("a number, FIELD=VALUE, or Enter for the first, which the model chose: ")
    if not said:
        return {"accept": True}
    field, equals, value = said.partition("=")
    return {"set": {field: value}} if equals else {"pick": int(said)}


def reviewed(model: Model, path: Path) -> Trajectory:
    graph = build_graph(model, checkpointer=InMemorySaver(serde=checkpoint_serializer()))
    thread = {"configurable": {"thread_id": "1"}}
    settings = Settings(review_plan=True)
    result = graph.invoke({"path": str(path)}, thread, context=settings)
    while "__interrupt__" in result:  # once for each sample, and again after an invalid answer
        answer = ask(result["__interrupt__"][0].value)
        result = graph.invoke(Command(resume=answer), thread, context=settings)
    return result["trajectories"][0]


if __name__ == "__main__":
    trajectory = reviewed(load_model(), SAMPLE)
    print(f"plan: {trajectory.plan.text}, chosen by: {trajectory.plan.chosen_by}")
    print(f"prediction: {trajectory.prediction.label}")
