"""A small agent: given a record with a missing modality, it calls the tool and answers with the evidence.

Run it from the repository's root with your chat model, after pip install langchain and the provider's
package: python examples/agent.py openai:gpt-5-mini
"""

import sys
from pathlib import Path

from langchain_core.language_models import BaseChatModel
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from omg_graph import Model, as_tool, load_model

DATA = Path(__file__).parent
TASK = "If a record misses a modality, reconstruct it. Cite the evidence for your answer by its ids."
QUESTION = "The record in sample.pkl has no audio. What does the speaker think, and what is the evidence?"


def build_agent(chat_model: BaseChatModel, model: Model) -> CompiledStateGraph:
    tools = [as_tool(model, data_folder=DATA)]
    with_tools = chat_model.bind_tools(tools)

    def think(state: MessagesState) -> MessagesState:
        return {"messages": [with_tools.invoke([("system", TASK), *state["messages"]])]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", tools_condition)
    graph.add_edge("tools", "think")
    return graph.compile()


if __name__ == "__main__":
    from langchain.chat_models import init_chat_model

    if len(sys.argv) < 2:
        sys.exit("expected a chat model, got none: run python examples/agent.py openai:gpt-5-mini")
    agent = build_agent(init_chat_model(sys.argv[1]), load_model())
    print(agent.invoke({"messages": [("user", QUESTION)]})["messages"][-1].content)
