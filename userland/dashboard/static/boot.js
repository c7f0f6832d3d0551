// Before the first paint: the theme, so that a dark page never flashes white. Not a module, so it runs at once.
(() => {
  const chosen = localStorage.getItem('llmos.theme');
  const dark = chosen === 'dark' || (chosen !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches);
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
})();
