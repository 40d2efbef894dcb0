import { useQueryClient } from '@tanstack/react-query';
import { useEffect, useEffectEvent, type RefObject } from 'react';
import { gitKeys, lookAgain } from '@/api/git';

/** A command that somebody typed has often ended by then. */
const AFTER_ENTER_MS = 1_200;
/** What programs change by themselves, agents and watchers, is seen by then. */
const EVERY_MS = 15_000;

/**
 * Keeps what git says of a worktree fresh. Nobody is told when a file changes inside a sandbox, so
 * it is looked at again a moment after Enter was pressed in a terminal, and now and then while the
 * page is in view.
 */
export function useFreshWorktree(
  sessionId: string,
  enabled: boolean,
  area: RefObject<HTMLElement | null>,
): void {
  const queries = useQueryClient();
  const look = useEffectEvent(() => void lookAgain(queries, sessionId));
  const glance = useEffectEvent(
    () => void queries.invalidateQueries({ queryKey: gitKeys.status(sessionId) }),
  );
  useEffect(() => {
    if (!enabled) return;
    let soon: number | undefined;
    const onKeyDown = (event: KeyboardEvent) => {
      if (event.key !== 'Enter') return;
      window.clearTimeout(soon);
      soon = window.setTimeout(() => look(), AFTER_ENTER_MS);
    };
    const every = window.setInterval(() => {
      if (document.visibilityState === 'visible') glance();
    }, EVERY_MS);
    const element = area.current;
    // The terminal keeps its keys to itself: they are seen on the way down.
    element?.addEventListener('keydown', onKeyDown, true);
    return () => {
      window.clearTimeout(soon);
      window.clearInterval(every);
      element?.removeEventListener('keydown', onKeyDown, true);
    };
  }, [enabled, area, sessionId]);
}
