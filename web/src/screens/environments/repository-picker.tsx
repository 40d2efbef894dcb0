import { Lock, Search } from 'lucide-react';
import { useState } from 'react';
import { Link } from 'react-router';
import { Button } from '@/ui/button';
import { ErrorNote } from '@/ui/error-state';
import { Input } from '@/ui/input';
import { SkeletonRows } from '@/ui/skeleton';
import { useRepositories, type Repository } from './repositories';

/** Searches and picks one of the connected account's repositories. */
export function RepositoryPicker({
  chosen,
  onChoose,
}: {
  chosen: string;
  onChoose: (repository: Repository) => void;
}) {
  const [search, setSearch] = useState('');
  const answer = useRepositories(search, true);
  if (answer.state === 'disconnected') {
    return (
      <div className="flex flex-col items-start gap-2 rounded-md border border-line bg-sunken p-3 text-sm">
        <p className="text-fg-2">Connect your GitHub account to pick from its repositories.</p>
        <Button asChild>
          <Link to={answer.connectAt}>Connect GitHub</Link>
        </Button>
      </div>
    );
  }
  return (
    <div className="flex flex-col gap-2">
      <Input
        icon={Search}
        type="search"
        aria-label="Search your repositories"
        placeholder="Search your repositories"
        value={search}
        onChange={(event) => setSearch(event.target.value)}
      />
      <div className="max-h-56 overflow-y-auto rounded-md border border-line">
        {answer.state === 'loading' && <SkeletonRows rows={3} label="Loading your repositories" />}
        {answer.state === 'failed' && (
          <div className="flex flex-col items-start gap-2 p-2">
            <ErrorNote error={answer.error} />
            <Button size="sm" onClick={answer.retry}>
              Retry
            </Button>
          </div>
        )}
        {answer.state === 'ready' && answer.repositories.length === 0 && (
          <p className="p-4 text-center text-sm text-fg-2">No repository fits.</p>
        )}
        {answer.state === 'ready' && (
          <ul>
            {answer.repositories.map((one) => (
              <li key={one.id}>
                <button
                  type="button"
                  aria-pressed={one.cloneUrl === chosen}
                  onClick={() => onChoose(one)}
                  className="flex w-full items-center gap-2 px-3 py-2 text-left text-sm hover:bg-hover focus-inset aria-pressed:bg-accent-soft pointer-coarse:min-h-11"
                >
                  <span className="min-w-0 flex-1 truncate">{one.fullName}</span>
                  {one.private && <Lock aria-label="private" className="size-3.5 text-fg-3" />}
                </button>
              </li>
            ))}
          </ul>
        )}
        {answer.state === 'ready' && answer.more && (
          <Button variant="ghost" className="w-full" onClick={answer.more}>
            Show more
          </Button>
        )}
      </div>
    </div>
  );
}
