import type { Branch, DiffOf, GitStatus } from '@/api/git';

/**
 * What is looked at: everything since the last commit, only what is not staged, only what is, or
 * everything since the branch left another one.
 */
export type Scope =
  { kind: 'uncommitted' } | { kind: 'unstaged' } | { kind: 'staged' } | { kind: 'base'; base: string };
export type ScopeKind = Scope['kind'];

/** Where somebody is in a review. */
export type Place = { scope: Scope; file?: string | undefined };

/** How the server is asked for it. Before the first commit there is none to compare with. Pure. */
export function diffOf(scope: Scope, status: Pick<GitStatus, 'head'>): DiffOf {
  switch (scope.kind) {
    case 'uncommitted':
      // By its hash: `HEAD` is taken for the remote's.
      return status.head === null ? {} : { base: status.head };
    case 'unstaged':
      return {};
    case 'staged':
      return { staged: true };
    case 'base':
      return { base: scope.base };
  }
}

/** Reads a place from an address, whatever stands there. Pure. */
export function placeFrom(params: URLSearchParams): Place {
  const kind = params.get('scope');
  const base = params.get('base') ?? '';
  const scope: Scope =
    kind === 'unstaged' || kind === 'staged'
      ? { kind }
      : kind === 'base' && base !== ''
        ? { kind, base }
        : { kind: 'uncommitted' };
  return { scope, file: params.get('file') ?? undefined };
}

/** The address's part for a place; the usual one has none. Pure. */
export function placeParams({ scope, file }: Place): Record<string, string> {
  return {
    ...(scope.kind === 'uncommitted' ? {} : { scope: scope.kind }),
    ...(scope.kind === 'base' ? { base: scope.base } : {}),
    ...(file === undefined ? {} : { file }),
  };
}

/** What stands where there is nothing to see. Pure. */
export function emptySentence(scope: Scope): string {
  switch (scope.kind) {
    case 'uncommitted':
      return 'Everything in this worktree is committed.';
    case 'unstaged':
      return 'Nothing is changed that is not staged.';
    case 'staged':
      return 'Nothing is staged.';
    case 'base':
      return `There is no change since ${shortRef(scope.base)}.`;
  }
}

/** A commit's hash as people write it; other names as they are. Pure. */
export function shortRef(ref: string): string {
  return /^[0-9a-f]{40,64}$/u.test(ref) ? ref.slice(0, 8) : ref;
}

/** The name under which a branch is compared with: the remote's, which is fresher, where there is one. Pure. */
export function baseOf({ name, remote }: Pick<Branch, 'name' | 'remote'>): string {
  return remote ? `origin/${name}` : name;
}

/** Which branch a review begins from: the environment's, else the remote's own choice. Pure. */
export function usualBase(
  branches: readonly Branch[] | undefined,
  wanted: string | undefined,
  fallback: string | null | undefined,
): string | undefined {
  const names = [wanted, fallback, 'main', 'master'];
  for (const name of names) {
    const found = branches?.find((one) => one.name === name);
    if (found) return baseOf(found);
  }
  return undefined;
}
