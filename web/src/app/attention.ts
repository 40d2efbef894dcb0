import { createContext, use, useMemo } from 'react';
import { useApprovals, useBlockedPrompts } from '@/api/agents';
import { useEnvironments } from '@/api/queries';
import { attention, mayBeBlocked, type Attention } from './inbox';

const NOTHING: readonly Attention[] = [];

/** What waits for the person, worked out once for all of the page that shows it. */
export const AttentionContext = createContext<readonly Attention[]>(NOTHING);

/** What waits for the person now, in the order in which it is gone through. */
export function useAttention(): readonly Attention[] {
  return use(AttentionContext);
}

/** Works it out, for the context. */
export function useWaiting(): readonly Attention[] {
  const { data: environments } = useEnvironments();
  const { data: approvals } = useApprovals();
  const asked = useMemo(() => mayBeBlocked(environments ?? []), [environments]);
  const blocked = useBlockedPrompts(asked);
  return useMemo(
    () => (environments ? attention(environments, approvals, blocked) : NOTHING),
    [environments, approvals, blocked],
  );
}
