import { useQueryClient } from '@tanstack/react-query';
import { useEffect, useEffectEvent, type RefObject } from 'react';
import { useLookAt } from '@/api/events';
import { lookAgain } from '@/api/git';

/** A command that somebody typed has often ended by then. */
const AFTER_ENTER_MS = 1_200;

/**
 * Keeps what git says of a worktree fresh: the server watches it while the page is in view, and a
 * moment after Enter was pressed in a terminal it is looked at without waiting for that.
 */
export function useFreshWorktree(
  sessionId: string,
  enabled: boolean,
  area: RefObject<HTMLElement | null>,
): void {
  const queries = useQueryClient();
  const look = useEffectEvent(() => void lookAgain(queries, sessionId));
  useLookAt(sessionId, enabled);
  useEffect(() => {
    if (!enabled) return;
    let soon: number | undefined;
    const onKeyDown = (event: KeyboardEvent) => {
      if (event.key !== 'Enter') return;
      window.clearTimeout(soon);
      soon = window.setTimeout(() => look(), AFTER_ENTER_MS);
    };
    const element = area.current;
    // The terminal keeps its keys to itself: they are seen on the way down.
    element?.addEventListener('keydown', onKeyDown, true);
    return () => {
      window.clearTimeout(soon);
      element?.removeEventListener('keydown', onKeyDown, true);
    };
  }, [enabled, area, sessionId]);
}
