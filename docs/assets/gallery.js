// Filters of the gallery: a tile is shown if it has every chosen value. The choice is kept in the address.
const form = document.getElementById("gallery-filters");
if (form) {
  const tiles = [...document.querySelectorAll("#gallery .tile")];
  const count = document.getElementById("gallery-count");
  const selects = [...form.querySelectorAll("select")];

  const show = () => {
    const chosen = selects.filter((select) => select.value);
    for (const tile of tiles) tile.hidden = chosen.some((select) => tile.dataset[select.name] !== select.value);
    const left = tiles.filter((tile) => !tile.hidden).length;
    count.textContent = left === 1 ? "1 checkpoint" : `${left} checkpoints`;
    const address = new URLSearchParams(chosen.map((select) => [select.name, select.value])).toString();
    history.replaceState(null, "", address ? `?${address}` : location.pathname);
  };

  const asked = new URLSearchParams(location.search);
  for (const select of selects) {
    const value = asked.get(select.name);
    if (value && [...select.options].some((option) => option.value === value)) select.value = value;
    select.addEventListener("change", show);
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
}
