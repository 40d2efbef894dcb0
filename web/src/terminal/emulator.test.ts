import { Terminal } from '@xterm/xterm';
import { describe, expect, it } from 'vitest';
import { linesOf, silence } from './emulator';
import { screenOf } from './screen';

function terminal() {
  const made = new Terminal({ cols: 20, rows: 4, allowProposedApi: true });
  silence(made.parser);
  const answers: string[] = [];
  made.onData((data) => answers.push(data));
  return { made, answers };
}

const text = (value: string) => new TextEncoder().encode(value);
const row = (made: Terminal, at: number) => made.buffer.active.getLine(at)?.translateToString(true);
const write = (made: Terminal, value: string) => new Promise<void>((done) => made.write(value, done));

describe('the emulator', () => {
  it.each([
    ['device attributes', '\x1b[c\x1b[0c\x1b[>c\x1b[=c'],
    ['its state and position', '\x1b[5n\x1b[6n\x1b[?6n\x1b[?15n'],
    ['modes', '\x1b[4$p\x1b[?2004$p'],
    ['its version', '\x1b[>q\x1b[>0q'],
    ['its window', '\x1b[14t\x1b[16t\x1b[18t\x1b[21t'],
    ['colours', '\x1b]4;1;?\x07\x1b]10;?\x07\x1b]11;?\x1b\\\x1b]12;?\x07\x1b]10;?;?\x07'],
    ['settings', '\x1bP$qm\x1b\\\x1bP$qr\x1b\\\x1bP+q544e\x1b\\'],
  ])('does not answer a question about %s', async (_what, question) => {
    const { made, answers } = terminal();
    await write(made, `${question}shown`);
    expect(answers).toEqual([]);
    expect(row(made, 0)).toBe('shown');
  });

  it('answers where nobody took the questions away, which is why they are', async () => {
    const made = new Terminal({ allowProposedApi: true });
    const answers: string[] = [];
    made.onData((data) => answers.push(data));
    await write(made, '\x1b[c');
    expect(answers).not.toEqual([]);
  });

  it('shows a snapshot in the place of everything, also of what still waits to be parsed', async () => {
    const { made } = terminal();
    const screen = screenOf(made);
    screen.write(text('old\r\n'.repeat(50)), () => undefined);
    screen.write(text('\x1b[31m\x1b]0;open'), () => undefined); // a sequence that has no end
    screen.resize({ columns: 30, rows: 5 });
    await new Promise<void>((done) => screen.replace(text('new'), done));
    expect([made.cols, made.rows]).toEqual([30, 5]);
    expect(made.buffer.active.length).toBe(5);
    expect(row(made, 0)).toBe('new');
    expect(made.buffer.active.getLine(0)?.getCell(0)?.isFgDefault()).toBe(true);
  });

  it('says that a long piece was shown once, when all of it was', async () => {
    const { made } = terminal();
    let times = 0;
    const long = `${'x'.repeat(19)}\r\n`.repeat(30_000);
    await new Promise<void>((done) => {
      screenOf(made).write(text(`${long}end`), () => {
        times += 1;
        done();
      });
    });
    await write(made, '');
    expect(times).toBe(1);
    expect(row(made, made.buffer.active.baseY + made.buffer.active.cursorY)).toBe('end');
  });

  it('gives what had to be wrapped as it was printed', async () => {
    const { made } = terminal();
    const long = 'x'.repeat(19) + ' ' + 'y'.repeat(25);
    await write(made, `first\r\n${long}\r\nlast`);
    expect(linesOf(made.buffer.normal)).toEqual(['first', long, 'last']);
  });
});
