"use strict";
try {
  const wanted = localStorage.getItem("byname-theme");
  if (wanted === "light" || wanted === "dark") document.documentElement.dataset.theme = wanted;
} catch (error) { /* a page that may store nothing follows the system */ }
