const PROGRAMS: readonly [RegExp, string][] = [
  [/craftastic/iu, 'Craftastic’s command line'],
  [/python-httpx/iu, 'Command line or script (Python)'],
  [/^curl\//iu, 'curl'],
];
/** In this order: each of the later ones is named by the earlier ones too. */
const BROWSERS: readonly [RegExp, string][] = [
  [/\bEdgA?\/|\bEdgiOS\//u, 'Edge'],
  [/\bOPR\//u, 'Opera'],
  [/\bSamsungBrowser\//u, 'Samsung Internet'],
  [/\bFirefox\/|\bFxiOS\//u, 'Firefox'],
  [/\b(?:Headless)?Chrome\/|\bCriOS\//u, 'Chrome'],
  [/\bSafari\//u, 'Safari'],
];
const SYSTEMS: readonly [RegExp, string][] = [
  [/\biPhone\b/u, 'iPhone'],
  [/\biPad\b/u, 'iPad'],
  [/\bAndroid\b/u, 'Android'],
  [/\bWindows\b/u, 'Windows'],
  [/\bMac OS X\b|\bMacintosh\b/u, 'macOS'],
  [/\bCrOS\b/u, 'ChromeOS'],
  [/\bLinux\b/u, 'Linux'],
];
const SHOWN_CHARACTERS = 60;

function first(list: readonly [RegExp, string][], text: string): string | undefined {
  return list.find(([pattern]) => pattern.test(text))?.[1];
}

/** What a client most likely is, by what it said of itself; what is unknown is shown as it is. Pure. */
export function deviceName(said: string | null): string {
  if (said === null || said.trim() === '') return 'Unknown device';
  const program = first(PROGRAMS, said);
  if (program !== undefined) return program;
  const browser = first(BROWSERS, said);
  const system = first(SYSTEMS, said);
  if (browser !== undefined) return system === undefined ? browser : `${browser} on ${system}`;
  const whole = said.trim();
  return whole.length > SHOWN_CHARACTERS ? `${whole.slice(0, SHOWN_CHARACTERS)}…` : whole;
}

export function onPhone(said: string | null): boolean {
  return /\biPhone\b|\bAndroid\b|\biPad\b/u.test(said ?? '');
}
