import { answeredBefore, useDecide, type Approval, type Decision } from '@/api/agents';
import { ApiError, explain } from '@/api/errors';
import { toast } from '@/ui/toast';

/** Who was first, in the server's words, where an answer came too late. Pure. */
export function lateWord(error: unknown): string {
  if (error instanceof ApiError && error.status === 404) return 'It does not wait any more.';
  return explain(error).reason;
}

/** Answers one approval, and tells what came of it. */
export function useAnswer(approval: Pick<Approval, 'id' | 'sessionName'>) {
  const decide = useDecide();
  return {
    busy: decide.isPending ? decide.variables.decision : undefined,
    /** Whether it is answered now, by whomever. */
    answer: async (decision: Decision, message?: string): Promise<boolean> => {
      if (decide.isPending) return false;
      try {
        // A promise and no callback: the card is gone before the answer has come.
        await decide.mutateAsync({ id: approval.id, decision, ...(message ? { message } : {}) });
        return true;
      } catch (error) {
        if (answeredBefore(error)) {
          toast.note(`${approval.sessionName} was answered before`, { description: lateWord(error) });
          return true;
        }
        toast.failed(`${approval.sessionName} was not answered`, error);
        return false;
      }
    },
  };
}
