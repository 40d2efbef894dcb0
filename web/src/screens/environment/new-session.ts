import { useSearchParams } from 'react-router';

/** What the creation dialog begins with. */
export type SessionWish = {
  branch?: string | undefined;
  commit?: string | undefined;
  pull?: string | undefined;
};

const FIELDS = ['branch', 'commit', 'pull'] as const;

/** The address of an environment with its creation dialog open. Pure. */
export function newSessionAt(environmentId: string, wish: SessionWish = {}): string {
  const params = new URLSearchParams({ new: 'session' });
  for (const field of FIELDS) {
    const value = wish[field];
    if (value !== undefined) params.set(field, value);
  }
  return `/e/${environmentId}?${params.toString()}`;
}

/** The creation dialog is part of the address, so that it can be linked, and Back closes it. */
export function useNewSession(): {
  open: boolean;
  wish: SessionWish;
  show: (wish?: SessionWish) => void;
  hide: () => void;
} {
  const [params, setParams] = useSearchParams();
  const change = (wish: SessionWish | undefined) =>
    setParams(
      (before) => {
        const next = new URLSearchParams(before);
        for (const field of ['new', ...FIELDS]) next.delete(field);
        if (wish === undefined) return next;
        next.set('new', 'session');
        for (const field of FIELDS) {
          const value = wish[field];
          if (value !== undefined) next.set(field, value);
        }
        return next;
      },
      { replace: wish === undefined },
    );
  const given = (field: (typeof FIELDS)[number]) => params.get(field) ?? undefined;
  return {
    open: params.get('new') === 'session',
    wish: { branch: given('branch'), commit: given('commit'), pull: given('pull') },
    show: (wish = {}) => change(wish),
    hide: () => change(undefined),
  };
}
