import { Bot, Container, GitPullRequestArrow, Plus, SquareTerminal } from 'lucide-react';
import type { ReactNode } from 'react';
import { Link } from 'react-router';
import { CommandKeys } from '@/app/keys/shown';
import { useUser } from '@/auth/session';
import { Button } from '@/ui/button';

/** What stands here before there is an environment. */
export function Beginning({ onCreate, onTask }: { onCreate: () => void; onTask: () => void }) {
  const user = useUser();
  const first = user.name.split(/\s+/u)[0] ?? '';
  return (
    <div className="mx-auto max-w-3xl py-6 md:py-12">
      <h2 className="text-2xl font-semibold tracking-tight">Welcome{first === '' ? '' : `, ${first}`}</h2>
      <p className="mt-1 max-w-xl text-base text-fg-2">
        Craftastic gives each piece of work a place of its own. It takes three steps.
      </p>
      <ol className="mt-6 grid gap-3 md:grid-cols-3">
        <BeginningStep icon={<Container aria-hidden className="size-4" />} title="1. Make an environment">
          A sandbox with your repository in it, apart from everything else.
        </BeginningStep>
        <BeginningStep icon={<SquareTerminal aria-hidden className="size-4" />} title="2. Begin a session">
          A branch with its own worktree, and a terminal that lives on when you leave. An agent can work in
          it.
        </BeginningStep>
        <BeginningStep
          icon={<GitPullRequestArrow aria-hidden className="size-4" />}
          title="3. Review and push"
        >
          See what changed, commit it, push it. Your git credentials never enter the sandbox.
        </BeginningStep>
      </ol>
      <div className="mt-6 flex flex-wrap gap-2">
        <Button variant="primary" size="lg" icon={Plus} onClick={onCreate}>
          New environment
        </Button>
        <Button size="lg" icon={Bot} onClick={onTask}>
          Give an agent a task
        </Button>
        <Button asChild variant="ghost" size="lg">
          <Link to="/welcome">Look whether all is ready</Link>
        </Button>
      </div>
      <p className="mt-4 flex flex-wrap items-center gap-1.5 text-sm text-fg-3 max-md:hidden">
        Press <CommandKeys id="palette.open" /> for anything, <CommandKeys id="keys.show" /> for all keys.
      </p>
    </div>
  );
}

function BeginningStep({ icon, title, children }: { icon: ReactNode; title: string; children: ReactNode }) {
  return (
    <li className="rounded-lg border border-line bg-surface p-4 shadow-sm">
      <span className="mb-3 flex size-8 items-center justify-center rounded-md bg-accent-soft text-accent-fg">
        {icon}
      </span>
      <h3 className="text-base font-semibold">{title}</h3>
      <p className="mt-1 text-sm text-fg-2">{children}</p>
    </li>
  );
}
