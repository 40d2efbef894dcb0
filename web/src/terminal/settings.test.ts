import { afterEach, describe, expect, it } from 'vitest';
import {
  DEFAULT_SETTINGS,
  changeTerminalSettings,
  parseSettings,
  stepFont,
  terminalSettings,
} from './settings';

afterEach(() => changeTerminalSettings(DEFAULT_SETTINGS));

describe('the settings of terminals', () => {
  it.each([null, '', '{', '7', 'null', '[]', '{"fontSize":"big","screenReader":1}'])(
    'are their own for %j',
    (kept) => {
      expect(parseSettings(kept)).toEqual(DEFAULT_SETTINGS);
    },
  );

  it('keep text within what can be read and shown', () => {
    expect(parseSettings('{"fontSize":1000}').fontSize).toBe(32);
    expect(parseSettings('{"fontSize":-1}').fontSize).toBe(8);
    for (let step = 0; step < 100; step++) stepFont(1);
    expect(terminalSettings().fontSize).toBe(32);
    stepFont(0);
    expect(terminalSettings().fontSize).toBe(DEFAULT_SETTINGS.fontSize);
  });

  it('are remembered', () => {
    changeTerminalSettings({ screenReader: true });
    expect(parseSettings(localStorage.getItem('craftastic.terminal')).screenReader).toBe(true);
  });
});
