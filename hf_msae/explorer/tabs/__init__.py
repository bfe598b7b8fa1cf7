"""One module for each tab: its answers, functions of an explorer alone, and the part of the page that asks."""
