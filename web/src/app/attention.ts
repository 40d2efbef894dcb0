import { useEnvironments } from '@/api/queries';
import { attention, type Attention } from './status';

/** What waits for the person now, in the order in which it is gone through. */
export function useAttention(): readonly Attention[] {
  const { data } = useEnvironments();
  return data ? attention(data) : [];
}
