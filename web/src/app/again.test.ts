import { describe, expect, it, vi } from 'vitest';
import { again } from './again';

describe('parts of the page', () => {
  it('are fetched once where that works', async () => {
    const load = vi.fn(() => Promise.resolve('part'));

    expect(await again(load, 0)).toBe('part');
    expect(load).toHaveBeenCalledTimes(1);
  });

  it('are fetched once more where the network changed under it', async () => {
    const load = vi.fn().mockRejectedValueOnce(new TypeError('Failed to fetch')).mockResolvedValue('part');

    expect(await again(load, 0)).toBe('part');
    expect(load).toHaveBeenCalledTimes(2);
  });

  it('are given up after that', async () => {
    const load = vi.fn().mockRejectedValue(new TypeError('Failed to fetch'));

    await expect(again(load, 0)).rejects.toThrow('Failed to fetch');
    expect(load).toHaveBeenCalledTimes(2);
  });
});
