"""Pages of docs/measured/ of which a program writes what stands between two comments."""

import pathlib

from prompt_tuning.errors import ConfigError

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def write(path: pathlib.Path, text: str, *, title: str) -> None:
    """Puts text between the two markers of a page, which is made where there is none.

    Args:
      path: The page.
      text: The text.
      title: Heading of a page that is made.

    Raises:
      ConfigError: If the page has not one pair of markers.
    """
    page = path.read_text(encoding="utf-8") if path.exists() else f"# {title}\n\n{BEGIN}\n{END}\n"
    counts = page.count(BEGIN), page.count(END)
    if counts != (1, 1) or page.index(BEGIN) > page.index(END):
        raise ConfigError(
            f"{path} has no place for what was measured",
            got=f"{counts[0]} times {BEGIN!r}, {counts[1]} times {END!r}",
            expected="each once, the first above the second",
            fix="add the two lines where it belongs",
        )
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    text = text.strip("\n")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
