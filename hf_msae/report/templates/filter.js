
"use strict";
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
(() => {
  const form = document.getElementById("filter");
  if (!form) return;
  const text = form.querySelector("input");
  const told = form.querySelector("output");
  const cards = [...document.querySelectorAll(".card")];
  const show = () => {
    const wanted = text.value.trim().toLowerCase();
    const folded = document.querySelector("#concepts details.more");
    if (wanted && folded) folded.open = true;
    for (const card of cards) card.hidden = !card.dataset.name.includes(wanted);
    told.value = `${cards.filter((card) => !card.hidden).length} of ${cards.length}`;
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  text.addEventListener("input", show);
  show();
})();
