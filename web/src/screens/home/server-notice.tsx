import { Link } from 'react-router';
import { useReadiness } from '@/api/health';
import { Button } from '@/ui/button';
import { Notice } from '@/ui/notice';
import { readinessShown } from '../health/words';

/** Says to everybody that the server cannot do what it is for; nothing while it can, or nobody knows. */
export function ServerNotice() {
  const { data } = useReadiness();
  if (data === undefined || data.ready) return null;
  return (
    <Notice
      kind="bad"
      className="mb-6"
      action={
        <Button asChild>
          <Link to="/settings/health">Health</Link>
        </Button>
      }
    >
      <p className="font-medium">The server is not ready: what is asked of it may fail.</p>
      <p className="text-fg-2">{readinessShown(data, false).sentence}</p>
    </Notice>
  );
}
