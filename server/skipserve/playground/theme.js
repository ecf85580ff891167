// Light or dark: as the system has it, until somebody says otherwise.

const KEY = "skipserve.theme";
const ORDER = ["auto", "light", "dark"];
const NAMES = { auto: "as the system", light: "light", dark: "dark" };

/** Let a button go through the themes. */
export function followTheme(button) {
  let theme = remembered();
  const show = () => {
    document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${NAMES[theme]}`;
  };
  button.addEventListener("click", () => {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    localStorage.setItem(KEY, theme);
    show();
  });
  show();
}

function remembered() {
  const theme = localStorage.getItem(KEY);
  return ORDER.includes(theme) ? theme : "auto";
}
