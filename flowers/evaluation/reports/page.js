
const boxes = [...document.querySelectorAll("input[type=checkbox]")];
for (const box of boxes)
  box.onchange = () => boxes.filter(other => other.value === box.value).forEach(other => other.checked = box.checked);
document.querySelector("#download").onclick = event => {
  const rows = new Set(boxes.filter(box => box.checked).map(box => box.value));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([event.target.dataset.header, ...rows], {type: "text/csv"}));
  link.download = event.target.dataset.name;
  link.click();
};
