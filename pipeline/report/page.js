// Puts a filter above each log; without it the browser's own search does.
for (const log of document.querySelectorAll("pre.lines")) {
  const lines = Array.from(log.children);
  const label = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("output");
  input.type = "search";
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    let shown = 0;
    for (const line of lines) {
      line.hidden = !line.textContent.toLowerCase().includes(wanted);
      shown += line.hidden ? 0 : 1;
    }
    count.textContent = `${shown} of ${lines.length} lines`;
  });
  label.append("Lines with ", input, count);
  log.before(label);
}
