"""A written page as a tree of elements, read by the standard library's parser."""

import base64
import io
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

from PIL import Image

VOID = {"meta", "img", "input", "br", "line", "rect", "circle"}


@dataclass
class Element:
    tag: str
    attributes: dict
    children: list = field(default_factory=list)

    def all(self, tag=None, **attributes):
        """Elements below with this tag and these attributes; `of_class` asks for one of the classes."""
        of_class = attributes.pop("of_class", None)
        found = []
        for child in self.children:
            if not isinstance(child, Element):
                continue
            fits = tag in (None, child.tag) and (of_class is None or of_class in child.classes)
            if fits and all(child.attributes.get(name) == value for name, value in attributes.items()):
                found.append(child)
            found += child.all(tag, **attributes, **({} if of_class is None else {"of_class": of_class}))
        return found

    def one(self, tag=None, **attributes):
        (found,) = self.all(tag, **attributes)
        return found

    @property
    def classes(self):
        return (self.attributes.get("class") or "").split()

    @property
    def text(self):
        parts = [child.text if isinstance(child, Element) else child for child in self.children]
        return re.sub(r"\s+", " ", "".join(parts)).strip()

    @property
    def definitions(self):
        """dt -> dd of a list of definitions."""
        return dict(zip((dt.text for dt in self.all("dt")), (dd.text for dd in self.all("dd")), strict=True))


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.root = Element("page", {})
        self._open = [self.root]
        self.feed(self.source)
        self.close()
        assert self._open == [self.root], f"not closed: {[element.tag for element in self._open[1:]]}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} is there twice: {attrs}"
        element = Element(tag, dict(attrs))
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        self._open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data):
        self._open[-1].children.append(data)

    def section(self, name):
        return self.root.one("section", id=name)

    def card(self, latent):
        return self.root.one("article", **{"aria-labelledby": f"latent-{latent}"})

    @property
    def pictures(self):
        """Class -> the picture in the style sheet."""
        rules = re.findall(r"\.(p\d+)\{background-image:url\(data:image/webp;base64,([^)]+)\)\}", self.source)
        assert len(dict(rules)) == len(rules), "a picture is there twice"
        return {name: Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB") for name, data in rules}


def tiles_of(element):
    """Row -> what is said under it, of the tiles below an element; rows by the classes of their pictures."""
    found = {}
    for tile in element.all("li", of_class="tile"):
        picture = tile.one("span", of_class="pic")
        (name,) = [each for each in picture.classes if each != "pic"]
        row = int(picture.text.removeprefix("row ")) if name == "none" else int(name.removeprefix("p"))
        found[row] = tile.one("span", of_class="said").text
    return found
