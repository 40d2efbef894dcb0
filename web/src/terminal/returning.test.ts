import { afterEach, describe, expect, it, vi } from 'vitest';
import { watchReturns } from './returning';

function watched() {
  const told: string[] = [];
  const end = watchReturns({
    retry: (anew) => told.push(anew ? 'retry anew' : 'retry'),
    lost: () => told.push('lost'),
    seen: () => told.push('seen'),
  });
  return { told, end };
}

const shown = (state: DocumentVisibilityState) =>
  vi.spyOn(document, 'visibilityState', 'get').mockReturnValue(state);

describe('coming back', () => {
  let end: () => void = () => undefined;
  afterEach(() => end());

  it.each([
    ['the network is there again', window, 'online', ['retry anew']],
    ['the window gets the focus', window, 'focus', ['retry', 'seen']],
    ['the page comes out of the cache of the Back button', window, 'pageshow', ['retry', 'seen']],
    ['the page is looked at', document, 'visibilitychange', ['retry', 'seen']],
    ['not when the network is gone', window, 'offline', ['lost']],
  ])('tries at once when %s', (_when, target, event, expected) => {
    shown('visible');
    const one = watched();
    end = one.end;
    target.dispatchEvent(new Event(event));
    expect(one.told).toEqual(expected);
  });

  it('is not what a page does that goes out of sight', () => {
    shown('hidden');
    const one = watched();
    end = one.end;
    document.dispatchEvent(new Event('visibilitychange'));
    expect(one.told).toEqual([]);
  });

  it('is not listened for any more after the end', () => {
    const one = watched();
    one.end();
    for (const event of ['online', 'focus', 'pageshow', 'offline']) window.dispatchEvent(new Event(event));
    document.dispatchEvent(new Event('visibilitychange'));
    expect(one.told).toEqual([]);
  });
});
