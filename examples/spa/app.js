// The whole application: it shows the path, whichever page was asked for.
const show = () => {
  document.querySelector("h1").textContent = `This is ${location.pathname}`;
};

document.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link) return;
  event.preventDefault();
  history.pushState({}, "", link.href);
  show();
});

addEventListener("popstate", show);
show();
