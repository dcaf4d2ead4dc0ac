// Both runs' outputs, drawn over each other: for every sample, and again where room or colours change.
(() => {
  "use strict";
  const drawn = pictures.all("main > article").flatMap((article) => {
    const holders = pictures.all("[data-modality]", article);
    const data = holders.length ? JSON.parse(document.getElementById(article.id.replace("sample", "data")).textContent) : [];
    data.forEach(pictures.unpack);
    return holders.map((holder) => [holder, data[Number(holder.dataset.modality)]]);
  });
  const draw = () => drawn.forEach(([holder, data]) => pictures.draw(holder, data));
  for (const [holder, data] of drawn) pictures.listen(holder, data);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = document.documentElement.clientWidth;
  let waiting = 0;
  addEventListener("resize", () => {
    if (document.documentElement.clientWidth === width) return;
    width = document.documentElement.clientWidth;
    clearTimeout(waiting);
    waiting = setTimeout(draw, 100);
  });
  draw();
})();
