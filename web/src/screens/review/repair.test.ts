import { describe, expect, it } from 'vitest';
import { ApiError } from '@/api/errors';
import { repairOf } from './repair';

const refused = (code: string) => new ApiError('no', { status: 409, code });

describe('what a repair helps against', () => {
  it('is the worktree, the repository, or nothing', () => {
    expect(repairOf(refused('WORKTREE_MISSING'))).toBe('session');
    expect(repairOf(refused('GIT_LOCKED'))).toBe('session');
    expect(repairOf(refused('REPOSITORY_CORRUPT'))).toBe('environment');
    expect(repairOf(refused('NOTHING_TO_COMMIT'))).toBeUndefined();
    expect(repairOf(new Error('no'))).toBeUndefined();
  });
});
