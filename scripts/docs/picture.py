"""Take the pictures of the documentation: the demo city, and the viewer page. Needs the viewers: `make picture`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.demo_picture import PICTURE, shrink_picture, take_picture
from tests.support.viewer_pictures import take_viewer_pictures
from tests.support.viewers import find_browser, start_browser


def main() -> None:
    """Write the pictures."""
    program = find_browser()
    if program is None:
        sys.exit("no viewers: `make viewers` installs them")
    with tempfile.TemporaryDirectory() as folder, start_browser(program) as browser:
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_bytes(shrink_picture(take_picture(browser, Path(folder))))
        written = [PICTURE, *take_viewer_pictures(browser, Path(folder) / "pages")]
    for picture in written:
        print(picture, picture.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
