"""Call the reconstruction as an MCP tool, from any MCP client.

Start a server in the repository's root (langgraph dev --no-browser), then, in another terminal:
pip install mcp; python examples/mcp_client.py http://127.0.0.1:2024
"""

import ast
import asyncio
import sys

from mcp import Client


async def main(url: str) -> None:
    async with Client(f"{url}/mcp") as client:
        for tool in (await client.list_tools()).tools:
            print(f"{tool.name}: {tool.description}")
        # the path is relative to the server's data folder
        result = await client.call_tool("reconstruct", {"path": "sample.pkl"})
        # LangGraph's server returns the result as the text of a Python literal, not as JSON
        (trajectory,) = ast.literal_eval(result.content[0].text)["trajectories"]
        print(f"plan: {trajectory['plan']['text']}; prediction: {trajectory['prediction']['label']}")
        for entry in trajectory["evidence"]["audio"][:3]:
            print(f"- {entry['id']}: {entry['text']} ({entry['weight']:.2f})")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:2024"))
