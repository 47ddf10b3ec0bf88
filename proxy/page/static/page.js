"use strict";
// On a phone the navigation may be wider than the page.
{
  const here = document.querySelector("nav [aria-current]");
  const nav = here?.closest("nav");
  if (nav && nav.scrollWidth > nav.clientWidth) nav.scrollLeft = here.offsetLeft - (nav.clientWidth - here.offsetWidth) / 2;
}

// Copy buttons: each line with data-copy gets a button that copies the line's text.
(() => {
  if (!navigator.clipboard) return; // the browser allows no copies over plain http, but on this machine
  for (const text of document.querySelectorAll(".line [data-copy]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy: " + text.textContent.trim());
    const said = document.createElement("span");
    said.setAttribute("role", "status");
    said.className = "unseen";
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent.trim());
        said.textContent = "Copied";
        button.textContent = "Copied";
        button.classList.add("done");
      } catch {
        button.textContent = "Not allowed";
      }
      setTimeout(() => {
        button.textContent = "Copy";
        button.classList.remove("done");
        said.textContent = "";
      }, 2000);
    });
    text.closest(".line").append(button, said);
  }
})();
