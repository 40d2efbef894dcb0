import { describe, expect, it } from 'vitest';
import {
  BadFrame,
  Gap,
  MAX_FRAME_BYTES,
  Position,
  decode,
  encodeAcknowledge,
  encodeInput,
  encodeResize,
  encodeRole,
} from './protocol';

function frame(kind: number, number: number, bytes: Uint8Array): ArrayBuffer {
  const made = new Uint8Array(9 + bytes.length);
  made[0] = kind;
  new DataView(made.buffer).setBigUint64(1, BigInt(number));
  made.set(bytes, 9);
  return made.buffer;
}

const bytes = (...values: number[]) => new Uint8Array(values);

describe('what the server sends', () => {
  it('is read with numbers beyond 32 bits', () => {
    const number = 2 ** 40 + 7;
    expect(decode(frame(1, number, bytes(65, 0, 255)))).toEqual({
      kind: 'output',
      first: number,
      bytes: bytes(65, 0, 255),
    });
    expect(decode(frame(2, number, bytes()))).toEqual({
      kind: 'snapshot',
      following: number,
      bytes: bytes(),
    });
  });

  it('is read as control messages', () => {
    const ready = { type: 'ready', stream: 's', cols: 80, rows: 24, role: 'drive', resumed: true };
    expect(decode(JSON.stringify(ready))).toEqual({
      kind: 'ready',
      stream: 's',
      size: { columns: 80, rows: 24 },
      role: 'drive',
      resumed: true,
    });
    expect(decode('{"type":"exit"}')).toEqual({ kind: 'exit' });
    expect(decode('{"type":"something new"}')).toEqual({ kind: 'unknown' });
  });

  it.each([
    ['a short frame', new ArrayBuffer(8)],
    ['an empty frame', new ArrayBuffer(0)],
    ['an unknown kind', frame(3, 0, bytes(1))],
    ['a number that cannot be counted with', frame(1, Number.MAX_SAFE_INTEGER + 1, bytes())],
    ['a frame that is too big', new ArrayBuffer(MAX_FRAME_BYTES + 1)],
    ['no JSON', '{'],
    ['no object', '7'],
    ['null', 'null'],
    ['a size of nothing', '{"type":"size","cols":0,"rows":24}'],
    ['a size of half a row', '{"type":"size","cols":80,"rows":1.5}'],
    ['a huge size', '{"type":"size","cols":80,"rows":1e9}'],
    ['a stream without a name', '{"type":"stream"}'],
  ])('is refused when it is %s', (_what, hostile) => {
    expect(() => decode(hostile)).toThrow(BadFrame);
  });
});

describe('what the client sends', () => {
  it('carries input as it is', () => {
    expect(encodeInput(bytes(27, 91, 65))).toEqual(bytes(1, 27, 91, 65));
  });

  it('acknowledges with eight bytes', () => {
    expect(encodeAcknowledge(2 ** 33 + 1)).toEqual(bytes(2, 0, 0, 0, 2, 0, 0, 0, 1));
  });

  it('keeps sizes within the protocol', () => {
    expect(encodeResize({ columns: 5000, rows: 0 })).toBe('{"type":"resize","cols":1000,"rows":1}');
    expect(encodeRole('view')).toBe('{"type":"role","role":"view"}');
  });
});

describe('a position', () => {
  it('takes every byte once', () => {
    const position = new Position();
    position.enter('s');
    position.place({ kind: 'snapshot', following: 10, bytes: bytes() });
    expect(position.take({ kind: 'output', first: 10, bytes: bytes(1, 2, 3) })).toEqual(bytes(1, 2, 3));
    expect(position.take({ kind: 'output', first: 11, bytes: bytes(2, 3, 4) })).toEqual(bytes(4));
    expect(position.take({ kind: 'output', first: 5, bytes: bytes(9) })).toEqual(bytes());
    expect(position.query).toEqual({ stream: 's', seen: '14' });
  });

  it('does not pass over a gap', () => {
    const position = new Position();
    position.enter('s');
    expect(() => position.take({ kind: 'output', first: 0, bytes: bytes(1) })).toThrow(Gap);
    position.place({ kind: 'snapshot', following: 10, bytes: bytes() });
    expect(() => position.take({ kind: 'output', first: 11, bytes: bytes(1) })).toThrow(Gap);
  });

  it('wants a snapshot of another stream', () => {
    const position = new Position();
    position.enter('s');
    position.place({ kind: 'snapshot', following: 10, bytes: bytes() });
    position.enter('s');
    expect(position.query).toEqual({ stream: 's', seen: '10' });
    position.enter('t');
    expect(position.query).toEqual({});
  });
});
