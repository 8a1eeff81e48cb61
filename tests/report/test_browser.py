"""The page as a browser shows it, on a desk and on a telephone."""

import pytest
from browser import Page, find_browser
from PIL import Image

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed")

SORTED = """(() => {
  const heads = () => [...document.querySelectorAll('table.sortable tbody tr th')];
  const names = () => heads().map(head => head.dataset.order);
  const button = document.querySelectorAll('table.sortable thead button')[2];
  button.click(); const up = names(); button.click(); return [up, names()];
})()"""
PLAYED = """(async () => {
  const video = document.querySelector('video'); video.preload = 'auto'; video.load();
  await new Promise(done => { video.onloadeddata = done; video.onerror = done; });
  return [Math.round(video.duration * 25), video.error && video.error.message];
})()"""
IMAGES = "[...document.images].filter(i => !(i.complete && i.naturalWidth)).length"
WIDTH = "[document.documentElement.scrollWidth, innerWidth]"


@pytest.mark.parametrize(("width", "phone"), [(1200, False), (390, True)])
def test_the_page_is_whole(batch_folder, tmp_path, width, phone):
    with Page(width, phone=phone, profile=tmp_path / "profile") as page:
        page.open(batch_folder / "report.html")
        assert page.evaluate("document.title") == "run 1 – JoyFlash report"
        assert page.evaluate(WIDTH) == [width, width]  # nothing runs over the edge
        assert page.evaluate(IMAGES) == 0
        asked = [address for address in page.requests() if not address.startswith("data:")]
        assert asked == [(batch_folder / "report.html").resolve().as_uri()]
        up, down = page.evaluate(SORTED)
        assert up[:2] == ["wide 'quoted\"", "row-a"]  # 2.4 s before 3.2 s, the rest last
        assert down[:2] == ["row-a", "wide 'quoted\""]
        assert page.evaluate(PLAYED) == [73, None]
        assert page.complaints() == []
        page.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as shot:
        assert shot.width == width * (2 if phone else 1)
        assert shot.height > shot.width
        assert len(shot.convert("RGB").resize((200, 800)).getcolors(160_000)) > 1000
