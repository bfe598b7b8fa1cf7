from hf_msae.clipart.drawing import Drawing, clean_tags, clean_titles, normalize


def drawing(*tags: str, title: str = "", author: str = "Ann Lee", path: str = "animals/x.svg") -> Drawing:
    return Drawing(path, title, tags, author, public_domain=True)


def test_tags_take_one_form():
    collection = [
        drawing("Flags", "North_America", "cats &amp; dogs"),
        drawing("flag", "northamerica", "berries"),
        drawing("berry", "boxes", "glass"),
        drawing("box", "christmas"),
    ]
    assert clean_tags(collection) == [
        ("cats dogs", "flag", "north america"),
        ("berry", "flag", "north america"),
        ("berry", "box", "glass"),
        ("box", "christmas"),
    ]


def test_tags_that_say_nothing_of_the_picture_are_dropped():
    collection = [drawing("11", "x", "hash", "icon", "icons", "lemon_theme_icon", "ann lee", "penguin", "penguin")]
    assert clean_tags(collection) == [("penguin",)]


def test_a_title_shared_by_a_collection_gives_way_to_the_name_of_the_file():
    icons = [drawing(title="Lemon Theme", path=f"icons/editCopy_{i:02}_ann_le.svg") for i in range(5)]
    assert clean_titles([*icons, drawing(title="Old_Man")]) == ["edit copy"] * 5 + ["old man"]


def test_normalize_drops_markup_and_keeps_letters_of_every_script():
    assert normalize("  Über_<b>Haus</b>;  R&D &amp; 家 ") == "über haus r&d 家"
