"use strict";
const mark = document.createElement("p");
mark.textContent = browser.i18n.getMessage("mark");
document.body.prepend(mark);
