"""One folder for each tab: `answer` computes, `view` is the part of the page that asks."""
