// Runs before the first paint, so that a chosen theme never flashes. Same rules as src/app/appearance.ts.
(function () {
  try {
    var stored = JSON.parse(localStorage.getItem('craftastic.appearance') || '{}');
    var root = document.documentElement;
    if (stored.theme === 'dark' || stored.theme === 'light') root.dataset.theme = stored.theme;
    if (stored.contrast === 'more') root.dataset.contrast = 'more';
    if (stored.motion === 'less') root.dataset.motion = 'less';
  } catch {
    // Storage is closed or broken: the system's theme is shown.
  }
})();
