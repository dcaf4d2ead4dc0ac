"""A page from elsewhere, in a real browser: Studio's reaches the server on this machine, another doesn't."""

from __future__ import annotations

import shutil

import pytest
from playwright.sync_api import sync_playwright

STUDIO = "https://smith.langchain.com"
ASK = """async url => {
    const asked = {method: "POST", headers: {"Content-Type": "application/json"}, body: "{}"}
    try { return (await fetch(url + "/threads", asked)).status } catch (error) { return String(error) }
}"""


def test_studios_page_reaches_the_server_and_no_other(server: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    answers = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for origin in (STUDIO, "https://evil.example"):
            context = browser.new_context()
            # newer browsers ask their user as well; here that user allows whoever asks
            context.grant_permissions(["local-network-access"], origin=origin)
            page = context.new_page()
            page.route(
                f"{origin}/**", lambda route: route.fulfill(body="<p>a page</p>", content_type="text/html")
            )
            page.goto(f"{origin}/")
            answers[origin] = page.evaluate(ASK, server)
        browser.close()
    assert answers[STUDIO] == 200
    assert "Failed to fetch" in answers["https://evil.example"]
