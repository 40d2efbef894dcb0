import { useEffect } from 'react';
import type { Session } from '@/api/types';
import { seenSessions } from '@/app/seen';

/** Notes that what a session's agent has done was looked at, as soon as somebody can see it. */
export function useLooked(session: Session): void {
  useEffect(() => {
    const look = () => {
      if (document.visibilityState === 'visible') seenSessions.mark(session);
    };
    look();
    document.addEventListener('visibilitychange', look);
    return () => document.removeEventListener('visibilitychange', look);
  }, [session]);
}
