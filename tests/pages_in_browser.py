"""Look at the built pages in headless Chromium, as a phone and as a desktop shows them, in light and in dark.

.venv-site/bin/python tests/pages_in_browser.py site says what is wrong, a line each, and exits with 1 if anything is.
"""

import argparse
import functools
import shutil
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

WIDTHS = {"phone": (390, 844), "desktop": (1280, 900)}
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}
ADDRESSES = "[...document.querySelectorAll('a[href]')].map(a => a.href)"
IDS = "[...document.querySelectorAll('[id]')].map(e => e.id)"
WIDER = """[document.documentElement.scrollWidth, document.documentElement.clientWidth]"""
# Axe compares every element with every other: minutes for a long table, whose rows are alike.
SHORTER = "document.querySelectorAll('tbody tr:nth-child(n+30)').forEach(row => row.remove())"
PICTURES = """async () => {
  const found = [...document.querySelectorAll('article img')];
  await Promise.all(found.map(i => i.decode().catch(() => 0)));
  return found.filter(i => !i.alt.trim() || !i.naturalWidth).map(i => i.src);
}"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def look(browser, host, names, width, scheme):
    """Visit all pages in one window; returns findings, and per page its ids and the addresses that it links to."""
    size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
    own = (f"{host}/", "data:", "blob:")
    context = browser.new_context(viewport=size, color_scheme=scheme, is_mobile=width == "phone")
    page, findings, ids, links, here = context.new_page(), [], {}, {}, [""]

    def found(what):
        findings.append(f"{here[0]} ({width}, {scheme}): {what}")

    page.on("console", lambda message: found(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found(str(error)))
    page.on("requestfailed", lambda request: found(f"failed request {request.url}"))
    page.on("response", lambda answer: found(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.on("request", lambda request: None if request.url.startswith(own) else found(f"asks {request.url}"))
    for name in names:
        here[0] = name
        page.goto(f"{host}/{name}", wait_until="load")
        page.wait_for_load_state("networkidle")
        wide, shown = page.evaluate(WIDER)
        if wide > shown:
            found(f"{wide} pixels wide on a screen of {shown}")
        for picture in page.evaluate(PICTURES):
            found(f"no words for, or no, picture {picture}")
        ids[name], links[name] = set(page.evaluate(IDS)), page.evaluate(ADDRESSES)
        page.evaluate(SHORTER)
        for violation in Axe().run(page, options=RULES).response["violations"]:
            where = "; ".join(str(node["target"]) for node in violation["nodes"][:3])
            found(f"{violation['id']} x {len(violation['nodes'])}: {where}")
    context.close()
    return findings, ids, links


def dead(site, host, ids, links):
    """Links within the pages that lead to no file or to no such place in it."""
    for name, addresses in links.items():
        for address in sorted(set(addresses)):
            address, place = urldefrag(urljoin(f"{host}/{name}", address))
            if not address.startswith(host):
                continue
            file = unquote(address.removeprefix(host).split("?")[0]).strip("/") or "index.html"
            if not (site / file).is_file():
                yield f"{name}: dead link {file}"
            elif place and file in ids and unquote(place) not in ids[file]:
                yield f"{name}: no such place {file}#{place}"


def sorting_and_searching(browser, host):
    """What a reader does: sort a table by a click, filter it, search for a word, switch to dark."""
    page = browser.new_page()
    page.goto(f"{host}/figures/published/quick/tables/robust_accuracy.html")
    column = "[...document.querySelectorAll('article tbody tr')].map(row => Number(row.cells[7].textContent))"
    for way in ("ascending", "descending"):
        page.locator("th button", has_text="robust_accuracy").click()
        values = page.evaluate(column)
        if values != sorted(values, reverse=way == "descending"):
            yield f"not sorted, {way}"
    page.locator(".filter input").fill("eyepacs cw")
    rows = page.locator("article tbody tr:visible").all_inner_texts()
    if not 0 < len(rows) < len(values) or not all("eyepacs" in row for row in rows):
        yield f"filter leaves {len(rows)} of {len(values)} rows"
    page.goto(f"{host}/search.html?q=pneumothorax")
    page.wait_for_selector("#search-results li", timeout=10000)
    grounds = set()
    for _ in range(3):  # what the system says, light, dark
        page.locator(".theme-toggle:visible").first.click()
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    if len(grounds) != 2:
        yield f"light and dark are {grounds}"
    page.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path)
    parser.add_argument("--only", nargs="*", help="pages")
    options = parser.parse_args()
    handler = functools.partial(Quiet, directory=options.site)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"http://127.0.0.1:{server.server_port}"
    pages = [page.relative_to(options.site).as_posix() for page in options.site.rglob("*.html")]
    names = options.only or sorted(page for page in pages if not page.startswith("_"))
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    findings = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                seen, ids, links = look(browser, host, names, width, scheme)
                findings += seen
        findings += dead(options.site, host, ids, links)
        findings += sorting_and_searching(browser, host)
        browser.close()
    print("\n".join(findings) or f"{len(names)} pages are well")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
