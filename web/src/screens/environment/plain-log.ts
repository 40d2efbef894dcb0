const MAX_LINES = 3_000;
const MAX_LINE = 4_000;

/** Commands to a terminal: colours and the cursor (CSI), titles and links (OSC and the like), charsets. */
const COMMANDS =
  // eslint-disable-next-line no-control-regex -- controls are what is looked for
  /\u001b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[ -/]*[0-~])|\u009b[0-?]*[ -/]*[@-~]/gu;
/** Other controls, and marks that change the order or the place of what is beside them. */
const UNSEEN =
  // eslint-disable-next-line no-control-regex -- controls are what is looked for
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/gu;

/**
 * A program's output as it can be read outside of a terminal: without colours, and of lines that
 * were written over (progress bars) what they said last. Only the newest lines. Pure.
 */
export function plainLog(log: string): string {
  const lines = log.replace(COMMANDS, '').replaceAll('\r\n', '\n').split('\n');
  return lines
    .slice(-MAX_LINES)
    .map((line) => lastWritten(line).replace(UNSEEN, '').slice(0, MAX_LINE))
    .join('\n')
    .replace(/\n+$/u, '');
}

function lastWritten(line: string): string {
  if (!line.includes('\r')) return line;
  return line.split('\r').findLast((part) => part !== '') ?? '';
}
