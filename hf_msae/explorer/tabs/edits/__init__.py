"""The page "Saved edits" of the tab "Steer": what an edit makes of a picture."""
